#!lua
-- Add sessions that began elsewhere. Doing it twice is doing it once.
--
-- KEYS  live, log, ended, then users and attributes: ended is declared, because a mark that is out
--       of reach would not bar
-- ARGV  shard, then for each session its id, principal, idle deadline, record, the size of its
--       attributes in bytes, how many there are, and their names and values
-- ->    what became of each: created, exists, ended, expired
local shard, at, outcomes, entry = ARGV[1], 2, {}, nil
local at_ms = now_ms()

-- The ends that the log still has: members; and by principal, when all of its sessions were ended.
-- It is read for the first session that needs it.
local logged
local function read_log()
  logged = {ended = {}, before_ms = {}}
  for _, found in ipairs(redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', LOG_ENTRIES)) do
    local fields = found[2]
    local kind, member = fields[1], fields[2]
    if kind == 'revoked' or kind == 'rotated' or kind == 'expired' then
      logged.ended[member] = true
    elseif kind == 'everywhere' and fields[6] == '' then -- none was kept
      local principal = string.sub(member, 24)
      logged.before_ms[principal] = logged.before_ms[principal] or tonumber(fields[4])
    end
  end
end

local function has_ended(id, principal, record)
  if is_barred(id, principal) or barred_with_all(principal, record) then
    return true
  end
  if not logged then
    read_log()
  end
  return logged.ended[id .. '.' .. principal] or created_ms(record) <= (logged.before_ms[principal] or -1)
end

local function restore(id, principal, deadline_ms, record, bytes, first, count)
  if redis.call('ZSCORE', LIVE, id .. '.' .. principal) then
    redis.call('ZADD', LIVE, 'XX', 'GT', deadline_ms, id .. '.' .. principal)
    return 'exists'
  end
  if has_ended(id, principal, record) then
    return 'ended'
  end
  if tonumber(deadline_ms) <= at_ms or absolute_deadline_ms(record) <= at_ms then
    return 'expired'
  end
  local key = attributes_of(id)
  redis.call('UNLINK', key)
  entry = add(id, principal, deadline_ms, record)
  if count > 0 then
    for name = first, first + 2 * count - 1, 2 do
      redis.call('HSET', key, ARGV[name], ARGV[name + 1])
    end
    redis.call('HSET', key, '', entry .. ' ' .. bytes)
    redis.call('PEXPIREAT', key, string.format('%.0f', absolute_deadline_ms(record)))
  end
  return 'created'
end

while at <= #ARGV do
  local id, principal, deadline_ms, record, bytes = unpack(ARGV, at, at + 4)
  local count = tonumber(ARGV[at + 5])
  outcomes[#outcomes + 1] = restore(id, principal, deadline_ms, record, bytes, at + 6, count)
  at = at + 6 + 2 * count
end
if entry then
  ring(shard, entry) -- a gateway that was asked for one of them before looks again
end
return outcomes

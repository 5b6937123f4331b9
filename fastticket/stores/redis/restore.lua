#!lua
-- Add sessions that began elsewhere. Doing it twice is doing it once. What ended longer ago than
-- marks last, the caller leaves out (redis/ends.py).
--
-- KEYS  live, log, ended, bars, then users and attributes: ended and bars are declared, because
--       what is out of reach would not bar
-- ARGV  shard, then for each session its id, principal, idle deadline, record, when it began
--       elsewhere or empty, the size of its attributes in bytes, how many there are, and their names
--       and values
-- ->    what became of each: created, exists, ended, expired
local shard, at, outcomes, entry = ARGV[1], 2, {}, nil
local at_ms = now_ms()

local function restore(id, principal, deadline_ms, record, began_ms, bytes, first, count)
  if redis.call('ZSCORE', LIVE, id .. '.' .. principal) then
    redis.call('ZADD', LIVE, 'XX', 'GT', deadline_ms, id .. '.' .. principal)
    return 'exists'
  end
  if is_barred(id, principal) or barred_with_all(principal, record) then
    return 'ended'
  end
  if is_barred_for_long(principal, began_ms) then
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
  local id, principal, deadline_ms, record, began_ms, bytes = unpack(ARGV, at, at + 5)
  local count = tonumber(ARGV[at + 6])
  outcomes[#outcomes + 1] = restore(id, principal, deadline_ms, record, began_ms, bytes, at + 7, count)
  at = at + 7 + 2 * count
end
if entry then
  ring(shard, entry) -- a gateway that was asked for one of them before looks again
end
return outcomes

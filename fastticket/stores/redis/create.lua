#!lua
-- Add a session. Doing it twice is doing it once.
--
-- KEYS  live, log, user
-- ARGV  shard, session id, principal, idle deadline, record,
--       how many sessions the principal may have (0: any number), 1 if the oldest are ended for it
-- ->    ids of the ended ones; false: refused, there are enough;
--       a time: refused, the session must begin later than that
local shard, id, principal, deadline_ms, record = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local most, evicts = tonumber(ARGV[6]), ARGV[7] == '1'
local user, member = user_of(principal), id .. '.' .. principal
if redis.call('ZSCORE', LIVE, member) or is_barred(id, principal) then -- sent twice; it may have ended in between
  return {}
end
local until_ms = barred_with_all(principal, record)
if until_ms then
  -- Gateways' clocks are not quite this server's. After a failover this login could not be told
  -- from those that were ended.
  return string.format('%.0f', until_ms)
end

-- The principal's sessions: those past their deadline, by deadline, and the live ones, by creation.
local function others()
  local dead, alive, at_ms = {}, {}, now_ms()
  local listed = redis.call('HGETALL', user)
  for at = 1, #listed, 2 do
    local score = tonumber(redis.call('ZSCORE', LIVE, listed[at] .. '.' .. principal) or nil)
    if score and score > at_ms then
      alive[#alive + 1] = {id = listed[at], at_ms = struct.unpack('>I6', listed[at + 1])}
    elseif score then
      dead[#dead + 1] = {id = listed[at], at_ms = score}
    else
      redis.call('HDEL', user, listed[at])
    end
  end
  local function is_before(a, b)
    return a.at_ms < b.at_ms or (a.at_ms == b.at_ms and a.id < b.id)
  end
  table.sort(dead, is_before)
  table.sort(alive, is_before)
  return dead, alive
end

local gone = {}
if most > 0 then
  local dead, alive = others()
  if #alive >= most and not evicts then
    return false
  end
  -- A touch that is on its way may bring a session back that is past its deadline, so these count,
  -- too. They are removed first, and only as many as needed.
  for at = 1, math.min(#dead, #dead + #alive + 1 - most) do
    finish('expired', dead[at].id, principal, expiry_of(dead[at].id, principal, dead[at].at_ms))
  end
  local marks = {}
  for at = 1, #alive + 1 - most do
    gone[at] = alive[at].id
    marks[at] = mark_of(gone[at], principal)
    ring(shard, finish('revoked', gone[at], principal, 'evicted'))
  end
  if #marks > 0 then
    bar(marks, now_ms())
  end
end
add(id, principal, deadline_ms, record)
return gone

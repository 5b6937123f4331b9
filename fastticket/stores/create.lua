#!lua
-- Add a session. Done twice, it is the same as done once.
--
-- ARGV  shard, session id, principal, idle deadline, record, sessions of the principal at most (0: any number), 1 if the oldest then go
-- ->    ids of those that went; false: refused, there are enough
local shard, id, principal, deadline_ms, record = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local most, evicts = tonumber(ARGV[6]), ARGV[7] == '1'
local user, member = user_of(principal), id .. '.' .. principal
if redis.call('ZSCORE', LIVE, member) then
  return {}
end

-- The principal's live sessions, oldest first. Those past their deadline end here: a touch that is on its way must not make them too many.
local function alive()
  local found, at_ms = {}, now_ms()
  local listed = redis.call('HGETALL', user)
  for at = 1, #listed, 2 do
    local score = redis.call('ZSCORE', LIVE, listed[at] .. '.' .. principal)
    if score and tonumber(score) > at_ms then
      found[#found + 1] = {id = listed[at], created_ms = struct.unpack('>I6', listed[at + 1])}
    else
      finish('expired', listed[at], principal, score and expiry_of(listed[at], principal, tonumber(score)) or '')
    end
  end
  table.sort(found, function(a, b)
    return a.created_ms < b.created_ms or (a.created_ms == b.created_ms and a.id < b.id)
  end)
  return found
end

local gone = {}
if most > 0 then
  local others = alive()
  if #others >= most and not evicts then
    return false
  end
  for at = 1, #others - most + 1 do
    gone[at] = others[at].id
    ring(shard, finish('revoked', gone[at], principal, 'evicted'))
  end
end
redis.call('ZADD', LIVE, deadline_ms, member)
redis.call('HSET', user, id, record)
append('created', id, principal)
return gone

#!lua flags=allow-oom
-- The attributes of a session. Not flagged no-writes, as exchange.lua says: a replica must not answer.
--
-- KEYS  live, log, attributes
-- ARGV  session id, principal
-- ->    field and value, of one after the other; the field without a name has the version and a size. false: no such session
if redis.call('ZSCORE', LIVE, ARGV[1] .. '.' .. ARGV[2]) then
  return redis.call('HGETALL', attributes_of(ARGV[1]))
end
return false

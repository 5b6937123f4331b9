#!lua flags=allow-oom
-- The attributes of a session. Not flagged no-writes (exchange.lua): a replica must not answer.
--
-- KEYS  live, log, attributes
-- ARGV  session id, principal
-- ->    fields and values; the field without a name has the version and a size (write.lua);
--       false: no such session
if redis.call('ZSCORE', LIVE, ARGV[1] .. '.' .. ARGV[2]) then
  return redis.call('HGETALL', attributes_of(ARGV[1]))
end
return false

#!lua flags=allow-oom
-- The next entries of the log. Not flagged no-writes (exchange.lua): a replica must not answer.
--
-- KEYS  live, log
-- ARGV  last known entry (empty: from now on), how many entries at most
-- ->    { the entry to go on from, 1 if entries are lost, entries }
local since, most = ARGV[1], tonumber(ARGV[2])
local newest = redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', 1)
if since == '' or #newest == 0 then
  return {newest[1] and newest[1][1] or redis.call('XADD', LOG, '*', 'opened', ''), since == '' and 0 or 1, {}}
end
local lost, entries = 0, redis.call('XRANGE', LOG, since, '+', 'COUNT', most + 1)
if #entries > 0 and entries[1][1] == since then
  table.remove(entries, 1)
else
  lost, entries = 1, redis.call('XRANGE', LOG, '-', '+', 'COUNT', most)
end
return {#entries > 0 and entries[#entries][1] or since, lost, entries}

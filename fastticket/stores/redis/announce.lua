#!lua
-- Put a gateway into the register, or renew it there, or take it out.
--
-- KEYS  live, log, gateways, cards
-- ARGV  the gateway's id, its lease in ms (0: it goes), its card, how many gateways at most
-- ->    1; 0: there are as many others, and it is not there
--
-- Whatever calls first removes those whose lease is over. If nobody calls any more, the keys expire.
local GATEWAYS, CARDS = KEYS[3], KEYS[4]
local KEYS_LAST_MS = 86400000 -- longer than a lease
local id, lease_ms, card, most = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local at_ms = now_ms()
local gone = redis.call('ZRANGE', GATEWAYS, '-inf', string.format('%.0f', at_ms), 'BYSCORE', 'LIMIT', 0, most)
if lease_ms == 0 then
  gone[#gone + 1] = id
end
if #gone > 0 then
  redis.call('ZREM', GATEWAYS, unpack(gone))
  redis.call('HDEL', CARDS, unpack(gone))
end
if lease_ms == 0 then
  return 1
end
local until_ms = string.format('%.0f', at_ms + lease_ms)
if redis.call('ZADD', GATEWAYS, 'XX', 'CH', until_ms, id) == 0 then -- not there, or renewed in this very millisecond
  if not redis.call('ZSCORE', GATEWAYS, id) and #redis.call('ZRANGE', GATEWAYS, 0, -1) >= most then
    return 0
  end
  redis.call('ZADD', GATEWAYS, until_ms, id)
end
redis.call('HSET', CARDS, id, card)
redis.call('PEXPIREAT', GATEWAYS, string.format('%.0f', at_ms + KEYS_LAST_MS))
redis.call('PEXPIREAT', CARDS, string.format('%.0f', at_ms + KEYS_LAST_MS))
return 1

#!lua flags=allow-oom
-- The register: gateways whose lease is in force.
--
-- KEYS  live, log, gateways, cards
-- ->    id and card of each
local listed, cards = redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES'), {}
local held = redis.call('HGETALL', KEYS[4])
for at = 1, #held, 2 do
  cards[held[at]] = held[at + 1]
end
local found, at_ms = {}, now_ms()
for at = 1, #listed, 2 do
  if tonumber(listed[at + 1]) > at_ms and cards[listed[at]] then
    found[#found + 1] = listed[at]
    found[#found + 1] = cards[listed[at]]
  end
end
return found

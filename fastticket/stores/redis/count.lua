#!lua flags=allow-oom
-- How many sessions live. Not flagged no-writes (exchange.lua): a replica must not answer.
--
-- KEYS  live, log
return redis.call('ZCOUNT', LIVE, '(' .. string.format('%.0f', now_ms()), '+inf')

#!lua flags=allow-oom
-- Some of the shard's live sessions. Not flagged no-writes (exchange.lua): a replica must not answer.
--
-- KEYS  live, log
-- ARGV  cursor of ZSCAN (0: begin), the server that it is of, about how many
-- ->    { the next cursor (0: the end), this server, members, their idle deadlines, their records }
--
-- A cursor of ZSCAN means nothing to another server, or to this one after a restart: their hash
-- tables have another order. The shard is begun again there.
local cursor, server, count = ARGV[1], ARGV[2], ARGV[3]
local this = string.match(redis.call('INFO', 'server'), 'run_id:(%x%x%x%x%x%x%x%x)')
if server ~= this then
  cursor = '0'
end
local found = redis.call('ZSCAN', LIVE, cursor, 'COUNT', count)
local at_ms, members, deadlines, records = now_ms(), {}, {}, {}
for at = 1, #found[2], 2 do
  local member, deadline_ms = found[2][at], found[2][at + 1]
  if tonumber(deadline_ms) > at_ms then
    local record = redis.pcall('HGET', user_of(string.sub(member, 24)), string.sub(member, 1, 22))
    if type(record) == 'table' then
      return {err = 'TRYAGAIN a key of this slot is on its way to another server'}
    end
    if record then
      members[#members + 1] = member
      deadlines[#deadlines + 1] = string.format('%.0f', tonumber(deadline_ms))
      records[#records + 1] = record
    end
  end
end
return {found[1], this, members, deadlines, records}

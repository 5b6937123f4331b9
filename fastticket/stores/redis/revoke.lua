#!lua flags=allow-oom
-- End sessions of one principal: the named ones, or all but one. Also when memory is short.
--
-- KEYS  live, log, user; bars, if it is all: declared, because a bar that is out of reach would be
--       none
-- ARGV  shard, principal, reason, id of the session to keep (empty: none),
--       then session ids (none: all of the principal's)
-- ->    { ids of the ended sessions,
--         if it is all of them, the time by which they were created; else false }
--
-- A session that is not there leaves a mark, too: another gateway may be about to make it again.
local shard, principal, reason, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local LISTED_MAX = 1000
local ids, before_ms = {}, false
for at = 5, #ARGV do
  ids[#ids + 1] = ARGV[at]
end
if #ids == 0 then
  before_ms = now_ms()
  local listed = redis.call('HGETALL', user_of(principal))
  for at = 1, #listed, 2 do
    ids[#ids + 1] = listed[at]
    before_ms = math.max(before_ms, created_ms(listed[at + 1])) -- gateways' clocks are not this one
  end
end

if before_ms then
  bar_for_long(principal, before_ms)
end

local ended, marks, entry = {}, {}, nil
for _, id in ipairs(ids) do
  if id ~= kept then
    local ending = finish('revoked', id, principal, reason)
    if kept ~= '' or #marks < LISTED_MAX then
      marks[#marks + 1] = mark_of(id, principal)
    end
    if ending then
      entry = ending
      ended[#ended + 1] = id
    end
  end
end
-- All of a principal's sessions are one record to be made again, and one mark. Where one was kept,
-- each of the others has its own: one record for all would also end the successors of the kept one.
-- Unless they are very many.
if before_ms and (kept == '' or #ended > LISTED_MAX) then
  -- As the last entry it is heard even by gateways that are too far behind for the others.
  entry = append_everywhere(principal, before_ms, kept)
  if kept == '' then
    marks[#marks + 1] = 'p' .. principal
  end
end
bar(marks, before_ms or now_ms())
if entry then
  ring(shard, entry)
end
return {ended, before_ms and string.format('%.0f', before_ms)}

#!lua flags=allow-oom
-- Write touches, then read the log's tail, then deadlines, of one shard in one atomic step.
--
-- KEYS  live, log
-- ARGV  last known entry (empty: none; -: the log is not asked for), how many members are wanted,
--       these members, then score and member of each touch
-- ->    { the log's last entry, lost, entries after the known one,
--         deadlines (false: no such member; -1: it was ended in the last minutes) }
--
-- lost  0: nothing
--       1: entries: the log has more than BEHIND_MAX newer ones
--       2: data: the known entry is missing, although few are newer, so it was not trimmed
-- With 1 and 2 the last few entries are returned.
--
-- It is not flagged no-writes, even if nothing is written: a replica, or a primary that lost its
-- replicas (min-replicas-to-write), must not answer, because its log may be old. It may run when
-- memory is short (allow-oom): a touch only changes a score.
local live, log = KEYS[1], KEYS[2]
local since, wanted = ARGV[1], tonumber(ARGV[2])
local AT_ONCE = 4000 -- less than the limit of unpack; even, for pairs
local HEARD_MAX = 128 -- entries that are returned after others were lost
local BEHIND_MAX = 4096 -- for a gateway further behind, loading again is less work than reading all

for first = 3 + wanted, #ARGV, AT_ONCE do
  redis.call('ZADD', live, 'XX', 'GT', unpack(ARGV, first, math.min(first + AT_ONCE - 1, #ARGV)))
end

-- The last entry, and the last few.
local function newest(count)
  local found, entries = redis.call('XREVRANGE', log, '+', '-', 'COUNT', count), {}
  for at = #found, 1, -1 do
    entries[#entries + 1] = found[at]
  end
  -- A log is never empty: by its last entry a gateway can tell later whether entries were lost.
  return found[1] and found[1][1] or redis.call('XADD', log, '*', 'opened', ''), entries
end

local last, lost, entries = since, 0, {}
if since == '-' then
  last = '0-0'
elseif since == '' then
  last = newest(1)
else
  entries = redis.call('XRANGE', log, since, '+', 'COUNT', BEHIND_MAX + 1)
  if #entries == 0 or #entries > BEHIND_MAX or entries[1][1] ~= since then
    lost = #entries > BEHIND_MAX and 1 or 2
    last, entries = newest(HEARD_MAX)
  else
    table.remove(entries, 1)
    last = #entries > 0 and entries[#entries][1] or since
  end
end

local deadlines = {}
for first = 3, 2 + wanted, AT_ONCE do
  local scores = redis.call('ZMSCORE', live, unpack(ARGV, first, math.min(first + AT_ONCE - 1, 2 + wanted)))
  for at, score in ipairs(scores) do
    if not score then
      local mark = redis.pcall('ZSCORE', string.sub(live, 1, -5) .. 'ended', 's' .. ARGV[first + at - 1])
      score = type(mark) == 'string' and '-1'
    end
    deadlines[#deadlines + 1] = score
  end
end
return {last, lost, entries, deadlines}

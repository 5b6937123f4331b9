#!lua flags=allow-oom
-- Touches, then the tail of the log, then deadlines, of one shard, in one atomic step.
--
-- KEYS  live, log
-- ARGV  the last entry known (empty: none), how many members are wanted, these members, then score and member of each touch
-- ->    { last entry of the log, what is lost (0: nothing), entries after the one known, deadlines (false: no such member; -1: nor will
--       there be, it was ended in the last minutes) }
--
-- Lost, 1: entries. The log is trimmed only when it has more than BEHIND_MAX new ones. 2: data; the one known is not there, and few are
-- newer. Either way the last few entries come along.
--
-- It is not flagged no-writes, even if nothing is written: a replica, or a primary that lost its replicas (min-replicas-to-write),
-- must not answer, because its log may be old. It may run out of memory (allow-oom): a touch only changes a score.
local live, log = KEYS[1], KEYS[2]
local since, wanted = ARGV[1], tonumber(ARGV[2])
local AT_ONCE = 4000 -- fewer than what unpack can do; even, for pairs
local HEARD_MAX = 128 -- of the entries that are there after others were lost
local BEHIND_MAX = 4096 -- who is further behind loads again what it needs: that is less work than to read all this

for first = 3 + wanted, #ARGV, AT_ONCE do
  redis.call('ZADD', live, 'XX', 'GT', unpack(ARGV, first, math.min(first + AT_ONCE - 1, #ARGV)))
end

-- The last entry, and the last few.
local function newest(count)
  local found, entries = redis.call('XREVRANGE', log, '+', '-', 'COUNT', count), {}
  for at = #found, 1, -1 do
    entries[#entries + 1] = found[at]
  end
  -- A log is never empty: who has seen its last entry can tell whether it was lost.
  return found[1] and found[1][1] or redis.call('XADD', log, '*', 'opened', ''), entries
end

local last, lost, entries = since, 0, {}
if since == '' then
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

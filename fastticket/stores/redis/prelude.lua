-- The beginning of every script of a shard.
--
-- KEYS  live, log, then the keys of the principal and session that the script is about
--
-- Keys of other sessions are computed: they have the same hash tag, so they are in the same slot.
-- While a Cluster moves that slot, access to an undeclared key that is not on this server ends the
-- script where it stands. So such access comes before the first write, or may fail (pcall).
local LIVE, LOG = KEYS[1], KEYS[2]
local TAG = string.sub(LIVE, 1, -5)
local ENDED = TAG .. 'ended'
local LOG_ENTRIES = 8192 -- twice as many as a gateway reads in one go (BEHIND_MAX, exchange.lua)
local NEVER_MS = 2 ^ 53 - 1

local function user_of(principal)
  return TAG .. 'user:' .. principal
end

local function attributes_of(id)
  return TAG .. 'attr:' .. id
end

local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

local function append(kind, id, principal, ...)
  return redis.call('XADD', LOG, 'MAXLEN', '~', LOG_ENTRIES, '*', kind, id .. '.' .. principal, ...)
end

local function append_everywhere(principal, before_ms, kept)
  local nobody = string.rep('-', 22)
  return append('everywhere', nobody, principal, 'before', string.format('%.0f', before_ms), 'keep', kept)
end

-- A record: creation (ms, 6 bytes), idle timeout and absolute lifetime (s, 4 bytes each), details
-- (JSON).
local function created_ms(record)
  return (struct.unpack('>I6', record))
end

local function absolute_deadline_ms(record)
  local created, _, lifetime_s = struct.unpack('>I6I4I4', record)
  return lifetime_s > 0 and created + lifetime_s * 1000 or NEVER_MS
end

-- An ended session leaves a mark. After a failover (again.lua) a gateway may send its login or
-- rotation after another gateway has sent its end: the mark bars it.
--
-- A mark is of a session (mark_of), or 'p' and a principal: all of its sessions created before. A
-- session's mark names its principal, too: a revocation under a wrong principal must not bar it.
-- Marks expire after BAR_MS, longer than gateways make anything again; the oldest go first if there
-- are more than BARS_MAX. They may be out of reach while a Cluster moves the slot (pcall).
local BAR_MS = 180000
local BARS_MAX = 10000
local AT_ONCE = 4000 -- less than the limit of unpack

local function mark_of(id, principal)
  return 's' .. id .. '.' .. principal
end

local function unbar(marks)
  for first = 1, #marks, AT_ONCE do
    redis.pcall('ZREM', ENDED, unpack(marks, first, math.min(first + AT_ONCE - 1, #marks)))
  end
end

local function bar(marks, at_ms)
  for at = 1, math.min(#marks, BARS_MAX) do
    redis.pcall('ZADD', ENDED, 'GT', string.format('%.0f', at_ms + BAR_MS), marks[at])
  end
  unbar(redis.pcall('ZRANGE', ENDED, '-inf', string.format('%.0f', now_ms()), 'BYSCORE', 'LIMIT', 0, AT_ONCE))
  unbar(redis.pcall('ZRANGE', ENDED, 0, -1 - BARS_MAX))
  redis.pcall('PEXPIREAT', ENDED, string.format('%.0f', now_ms() + BAR_MS + 10000))
end

local function is_barred(id, principal)
  return type(redis.pcall('ZSCORE', ENDED, mark_of(id, principal))) == 'string'
end

-- -> when all of a principal's sessions were ended, if the record was created by then; else nil
local function barred_with_all(principal, record)
  local until_ms = redis.pcall('ZSCORE', ENDED, 'p' .. principal)
  local ended_ms = type(until_ms) == 'string' and tonumber(until_ms) - BAR_MS
  return ended_ms and created_ms(record) <= ended_ms and ended_ms or nil
end

-- A bar lasts: all sessions of a principal, or of everybody (''), were ended then, and what began
-- elsewhere by then is not restored. contract.py says how many there are: where there are more,
-- everybody's rises to the oldest that go. A script that must not lose one declares the key, which
-- has no expiry: when memory is short, policies of the kind volatile-* throw away what has one.
local BARS = TAG .. 'bars'
local LASTS_MS = 180 * 86400000
local LASTING_MAX = 100000

local function bar_for_long(principal, at_ms)
  redis.pcall('ZADD', BARS, 'GT', string.format('%.0f', at_ms), principal)
  local over = redis.pcall('ZRANGE', BARS, -1 - LASTING_MAX, -1 - LASTING_MAX, 'WITHSCORES')
  if over[2] then
    redis.pcall('ZADD', BARS, 'GT', over[2], '')
  end
  local everybodys = redis.pcall('ZSCORE', BARS, '')
  local covered_ms = math.max(type(everybodys) == 'string' and tonumber(everybodys) or 0, now_ms() - LASTS_MS)
  local covered = redis.pcall('ZRANGE', BARS, '-inf', string.format('%.0f', covered_ms), 'BYSCORE', 'LIMIT', 0, AT_ONCE)
  for _, who in ipairs(covered) do
    if who ~= '' then
      redis.pcall('ZREM', BARS, who)
    end
  end
end

-- `began_ms`: when it began elsewhere; empty: it has begun here
local function is_barred_for_long(principal, began_ms)
  for _, who in ipairs({principal, ''}) do
    local at_ms = began_ms ~= '' and tonumber(redis.call('ZSCORE', BARS, who) or nil)
    if at_ms and tonumber(began_ms) <= at_ms and at_ms > now_ms() - LASTS_MS then
      return true
    end
  end
  return false
end

-- End a session. -> its entry in the log; nil: there was no such session
-- Keys that cannot be reached while a slot moves may stay: nothing is read of a session that is not
-- in live. A session that is neither there nor in the principal's index may be another principal's:
-- its attributes stay.
local function finish(kind, id, principal, reason)
  local ended = redis.call('ZREM', LIVE, id .. '.' .. principal) == 1
  local entry = ended and append(kind, id, principal, 'reason', reason) or nil
  local was_listed = redis.pcall('HDEL', user_of(principal), id) == 1
  if ended or was_listed then
    redis.pcall('UNLINK', attributes_of(id))
  end
  return entry
end

-- -> 'idle' or 'absolute': the deadline that a session has passed
local function expiry_of(id, principal, deadline_ms)
  local record = redis.pcall('HGET', user_of(principal), id)
  return type(record) == 'string' and deadline_ms >= absolute_deadline_ms(record) and 'absolute' or 'idle'
end

-- `changed`: the id of the session whose attributes were written, if the entry says only that
local function ring(shard, entry, changed)
  redis.call('PUBLISH', 'ft:doorbell', shard .. ' ' .. entry .. (changed and ' ' .. changed or ''))
end

-- -> its entry in the log
local function add(id, principal, deadline_ms, record)
  redis.call('HSET', user_of(principal), id, record)
  redis.call('ZADD', LIVE, deadline_ms, id .. '.' .. principal)
  return append('created', id, principal)
end

local function log_rotation(shard, id, principal, successor, deadline_ms, record)
  -- The entry has all that a gateway needs to make the rotation again.
  ring(shard, append('rotated', id, principal, 'to', successor, 'until', deadline_ms, 'record', record))
end

-- Give a live session another id. `record`: without the login's details, which it keeps.
local function move(shard, id, principal, successor, deadline_ms, record)
  local user = user_of(principal)
  local before = redis.call('HGET', user, id) or record
  if redis.call('EXISTS', attributes_of(id)) == 1 then
    redis.call('RENAME', attributes_of(id), attributes_of(successor))
    redis.call('PEXPIREAT', attributes_of(successor), string.format('%.0f', absolute_deadline_ms(record)))
  end
  redis.call('ZREM', LIVE, id .. '.' .. principal)
  redis.call('ZADD', LIVE, deadline_ms, successor .. '.' .. principal)
  redis.call('HDEL', user, id)
  redis.call('HSET', user, successor, record .. string.sub(before, #record + 1))
  log_rotation(shard, id, principal, successor, deadline_ms, record)
end

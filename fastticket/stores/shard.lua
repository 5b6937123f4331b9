-- What the scripts of one shard begin with.
--
-- KEYS  live, log, then those of the principal and session that the script is about
--
-- Keys of other sessions are computed: they have the same hash tag, so they are in the same slot. While a Cluster moves that slot, a key
-- that was not declared, and is not on this server, ends the script where it stands. So whatever may meet such a key comes before the
-- first write, or may fail (pcall).
local LIVE, LOG = KEYS[1], KEYS[2]
local TAG = string.sub(LIVE, 1, -5)
local LOG_ENTRIES = 8192 -- twice what anyone reads before they give up and load again (exchange.lua)
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

-- A record: when the session was created (ms, 6 bytes), idle timeout and absolute lifetime (s, 4 bytes each), details (JSON).
local function absolute_deadline_ms(record)
  local created_ms, _, lifetime_s = struct.unpack('>I6I4I4', record)
  return lifetime_s > 0 and created_ms + lifetime_s * 1000 or NEVER_MS
end

-- End a session. -> its entry in the log; nil: there was none
-- What can not be reached just now is of no use to anybody: nothing is read of a session that is not in live.
local function finish(kind, id, principal, reason)
  local ended = redis.call('ZREM', LIVE, id .. '.' .. principal) == 1
  local entry = ended and append(kind, id, principal, 'reason', reason) or nil
  redis.pcall('HDEL', user_of(principal), id)
  redis.pcall('UNLINK', attributes_of(id))
  return entry
end

-- -> idle or absolute: which of its deadlines a session has passed
local function expiry_of(id, principal, deadline_ms)
  local record = redis.pcall('HGET', user_of(principal), id)
  return type(record) == 'string' and deadline_ms >= absolute_deadline_ms(record) and 'absolute' or 'idle'
end

-- `changed`: id of the session whose attributes were written, if that is all
local function ring(shard, entry, changed)
  redis.call('PUBLISH', 'ft:doorbell', shard .. ' ' .. entry .. (changed and ' ' .. changed or ''))
end

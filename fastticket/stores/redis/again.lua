#!lua flags=allow-oom
-- Make again, on a server that has taken over, what a gateway heard in the last minute: ends,
-- rotations and its own logins, in the order in which it heard them. Other gateways send theirs
-- earlier or later, so nothing here depends on that order: an ended session leaves a mark, and a
-- marked one does not begin again (prelude.lua). Where nothing is missing, nothing is written.
--
-- KEYS  live, log, then users and attributes; or bars, where one must not be lost
-- ARGV  shard, then for each record its kind and
--         end         session id, principal
--         everywhere  principal, latest creation of the ended sessions, id of the kept one or empty
--         rotate      session id, principal, successor's id, its idle deadline, its record
--         create      session id, principal, idle deadline, record
--         bar         principal or empty, when all of their sessions were ended
-- ->    how many had been lost
local FRESH_MS = 60000 -- as in redis/ends.py
local shard, at, mended = ARGV[1], 2, 0

local function lives(id, principal)
  return redis.call('ZSCORE', LIVE, id .. '.' .. principal)
end

local function finish_again(id, principal)
  local entry = finish('revoked', id, principal, 'reissued')
  if entry then
    ring(shard, entry)
    mended = mended + 1
  end
end

local function end_again(id, principal)
  if lives(id, principal) then
    finish_again(id, principal)
  end
  if not is_barred(id, principal) then
    bar({mark_of(id, principal)}, now_ms())
  end
end

-- The mark of a principal lasts from the end on. After a long outage it is over, or nearly so: then
-- the log says it again, where restore looks (redis/ends.py). Once, however many gateways there are.
local function log_everywhere_again(principal, before_ms)
  if tonumber(before_ms) < now_ms() - FRESH_MS and not is_barred(before_ms, principal) then
    append_everywhere(principal, before_ms, '')
    bar({mark_of(before_ms, principal)}, now_ms())
  end
end

local function end_everywhere_again(principal, before_ms, kept)
  local listed = redis.call('HGETALL', user_of(principal))
  local marks = {}
  bar_for_long(principal, tonumber(before_ms))
  for i = 1, #listed, 2 do
    if listed[i] ~= kept and created_ms(listed[i + 1]) <= tonumber(before_ms) then
      finish_again(listed[i], principal)
      marks[#marks + 1] = mark_of(listed[i], principal)
    end
  end
  if kept == '' then
    marks[#marks + 1] = 'p' .. principal
    log_everywhere_again(principal, before_ms)
  end
  if #marks > 0 then
    bar(marks, before_ms)
  end
end

local function rotate_again(id, principal, successor, deadline_ms, record)
  if lives(successor, principal) then
    return
  end
  if is_barred(successor, principal) or barred_with_all(principal, record) then
    end_again(id, principal) -- its successor has ended since
    return
  end
  mended = mended + 1
  if lives(id, principal) then
    move(shard, id, principal, successor, deadline_ms, record)
  else
    add(successor, principal, deadline_ms, record)
    log_rotation(shard, id, principal, successor, deadline_ms, record)
  end
  bar({mark_of(id, principal)}, now_ms())
end

local function create_again(id, principal, deadline_ms, record)
  if not (lives(id, principal) or is_barred(id, principal) or barred_with_all(principal, record)) then
    mended = mended + 1
    add(id, principal, deadline_ms, record)
  end
end

local KINDS = {
  ['end'] = {end_again, 2},
  everywhere = {end_everywhere_again, 3},
  rotate = {rotate_again, 5},
  create = {create_again, 4},
  bar = {bar_for_long, 2},
}
while at <= #ARGV do
  local make, words = unpack(KINDS[ARGV[at]])
  make(unpack(ARGV, at + 1, at + words))
  at = at + 1 + words
end
return mended

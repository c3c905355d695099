#!lua name=proxyherd_2
-- What proxyherd's servers call. Keys are clients of one tag, values are 21 digits of nanoseconds, a space, and an
-- AT line: their order by bytes is the herd's total order. Behind the values may stand, for each key, the POSIX
-- milliseconds at which it expires. The last word is the herd's max_clock_lead_seconds, in nanoseconds. The answer is one
-- character a key: '1' if the key holds this value now, because of this call or of an earlier one like it, which may be
-- repeated when its outcome is not known; else '0', and '-' for a key that holds something else than a string: no server
-- has written it, and it must not stand in the way of others.
--
-- A client that was erased has a tombstone: the key '{tag} gone HASH', of 32 digits, with the moment up to which it covers
-- what a server has received. No covered value is stored. HASH is that of the ID behind a salt, which is the value of the
-- key '{tag} gone': so most calls learn from one missing key that nobody of their tag was erased.
--
-- Tombstones are no keys that a call declares. While a slot is moved, they may be at either node, and nobody knows. Then a
-- call has the error TRYAGAIN before it has changed anything, and is repeated when the slot has moved.
-- Whoever changes what a function does gives the library another number: servers of two versions share a cluster.

local MOVING = 'TRYAGAIN the keys of this slot are being moved, and tombstones with them'

-- The value of a key that is not declared; false if there is none, and nil if it may be at another node.
local function read(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then return nil end
  return value
end

-- When the server in a value's AT line received the report, and so many nanoseconds `more`: 22 digits of nanoseconds, which
-- are ordered like strings, because Lua's numbers would lose the last digits. '' for what has another form.
local function received(value, more)
  local sign, late, late_by, seconds, fraction =
    string.match(value, '^%d+ AT [^ ]+ ([+-])(%d+)%.(%d+) [^ ]+ [^ ]+ (%d+)%.?(%d*)$')
  if not sign then return '' end
  local ahead = sign == '-' and -1 or 1
  fraction = tonumber(fraction .. string.rep('0', 9 - #fraction)) + ahead * tonumber(late_by) + more
  seconds = tonumber(seconds) + ahead * tonumber(late) + math.floor(fraction / 1000000000)
  return seconds < 0 and string.rep('0', 22) or string.format('%013d%09d', seconds, fraction % 1000000000)
end

-- A value by whose bytes it is ordered. Version 1 wrote the time of the report, however far it was ahead of the clock of the
-- server that took it. Only so much of it counts as version 2 would have written: that clock and the lead.
local function ordered(value, lead)
  if not string.find(value, '^%d+ AT [^ ]+ %-') then return value end
  local most = received(value, lead)
  return most ~= '' and most < '0' .. value and string.sub(most, 2) .. string.sub(value, 22) or value
end

local function tombstone_key(salt, prefix, client)
  return prefix .. ' gone ' .. string.sub(redis.sha1hex(salt .. client), 1, 32)
end

local function line_of(tombstone, moment)
  return 'GONE ' .. string.sub(tombstone, -32) .. ' ' .. string.match(moment, '^0*(%d+)$')
end

-- Which of the values a tombstone covers; nil if nobody knows.
local function covered(keys, values)
  local prefix, found = string.match(keys[1], '^{%d+}'), {}
  local mark = read(prefix .. ' gone')
  if mark == nil then return nil end
  if mark then
    local salt = string.sub(mark, 1, 32)
    for i = 1, #keys do
      local gone = read(tombstone_key(salt, prefix, string.sub(keys[i], #prefix + 1)))
      if gone == nil then return nil end
      found[i] = gone and received(values[i], 0) <= gone
    end
  end
  return found
end

local function store(keys, values, bound)
  local count, outcomes, lead, gone = #keys, {}, tonumber(values[#values]), covered(keys, values)
  if not gone then return redis.error_reply(MOVING) end
  local expire = #values > count + 1
  for i = 1, count do
    local key, value = keys[i], values[i]
    local held = redis.pcall('GET', key)
    if type(held) == 'table' then
      outcomes[i] = '-'
    elseif gone[i] then
      outcomes[i] = '0'
    elseif not held or held < bound(value) or ordered(held, lead) < bound(value) then
      if expire then
        redis.call('SET', key, value, 'PXAT', values[count + i])
      else
        redis.call('SET', key, value)
      end
      -- Who wants to hear of news would be told here.
      outcomes[i] = '1'
    else
      outcomes[i] = ordered(held, lead) == value and '1' or '0'
    end
  end
  return table.concat(outcomes)
end

-- Erases the client of one key. `words`: up to which moment, in 22 digits; a second moment, or '>'; for how many milliseconds
-- a tombstone is kept; and a salt of 32 digits, for a tag that has none. A client that was seen between the second moment
-- and the first one stays. With '>', what is held now is erased, whenever it was received. The answer is a list: the
-- tombstone as a line, and 'stayed' if something is held that it does not cover. The salt's key also says when the last of its
-- tombstones expires, and expires with it. What is erased gets a time that has passed, because servers may not delete.
local function erase(keys, words)
  local key, prefix, until_, seen = keys[1], string.match(keys[1], '^{%d+}'), words[1], words[2]
  local mark = read(prefix .. ' gone')
  local salt = mark and string.sub(mark, 1, 32) or words[4]
  local tombstone = tombstone_key(salt, prefix, string.sub(key, #prefix + 1))
  local gone, held = read(tombstone), redis.pcall('GET', key)
  if mark == nil or gone == nil then return redis.error_reply(MOVING) end
  held = type(held) == 'string' and received(held, 0) or ''
  if seen == '>' then
    if held > until_ then until_ = held end
  elseif seen < held and held <= until_ then
    return {line_of(tombstone, seen), 'stayed'}
  end
  if not gone or until_ > gone then
    local expires = tonumber(string.sub(until_, 1, 16)) + tonumber(words[3])
    local last = string.format('%d', math.max(expires, mark and tonumber(string.sub(mark, 34)) or 0))
    redis.call('SET', prefix .. ' gone', salt .. ' ' .. last, 'PXAT', last)
    redis.call('SET', tombstone, until_, 'PXAT', string.format('%d', expires))
    gone = until_
  end
  if held ~= '' and held <= gone then redis.call('SET', key, '', 'PXAT', '1') end
  return {line_of(tombstone, gone), held > gone and 'stayed' or nil}
end

-- A report is stored if its time is later than the stored one's. A time alone is less than anything that begins with
-- it, so what is less than the time of `value` has an earlier one.
redis.register_function('proxyherd_2_advance', function(keys, values)
  return store(keys, values, function(value) return string.sub(value, 1, 21) end)
end)

-- What another server took is learned if it is greater in the total order.
redis.register_function('proxyherd_2_admit', function(keys, values)
  return store(keys, values, function(value) return value end)
end)

-- Also where memory is full: there is more of it behind.
redis.register_function{function_name = 'proxyherd_2_erase', flags = {'allow-oom'}, callback = erase}

-- The write that ends a batch: when a replica has it, it has all that this master knew. Also where memory is full:
-- what the batch has read is true nevertheless. It expires, to leave nothing behind where slots are moved.
redis.register_function{
  function_name = 'proxyherd_2_seal',
  flags = {'allow-oom'},
  callback = function(keys) return redis.call('SET', keys[1], '', 'PX', 60000) end,
}

-- Whether strings are compared by bytes: Lua asks the locale, which may put small letters before large ones.
redis.register_function{
  function_name = 'proxyherd_2_probe',
  flags = {'no-writes'},
  callback = function()
    local texts = {'', '\1', ' ', '+', '-', '0', '10', '2', 'B', 'Z', '_', 'a', 'aa', 'b', 'z', '\127', '\128',
      '\195\164', '\195\182', '\228', '\255', '\255\255'}
    for i = 2, #texts do
      if not (texts[i - 1] < texts[i]) then return 0 end
    end
    return 1
  end,
}

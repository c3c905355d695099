#!lua name=proxyherd_2
-- What proxyherd's servers call. Keys are clients of one tag, values are 21 digits of nanoseconds, a space, and an
-- AT line: their order by bytes is the herd's total order. Behind the values may stand, for each key, the POSIX
-- milliseconds at which it expires. The last word is the herd's max_clock_lead_seconds, in nanoseconds. The answer is one character a key: '1' if the key holds this value now, because
-- of this call or of an earlier one like it, which may be repeated when its outcome is not known; else '0', and '-' for a
-- key that holds something else than a string: no server has written it, and it must not stand in the way of others.
-- Whoever changes what a function does gives the library another number: servers of two versions share a cluster.

-- A value by whose bytes it is ordered. Version 1 wrote the time of the report, however far it was ahead of the clock of the
-- server that took it. Only so much of it counts as version 2 would have written: that clock and the lead.
local function ordered(value, lead)
  local late, late_by, seconds, fraction =
    string.match(value, '^%d+ AT [^ ]+ %-(%d+)%.(%d+) [^ ]+ [^ ]+ (%d+)%.?(%d*)$')
  if not late then return value end
  seconds = tonumber(seconds) - tonumber(late) + math.floor(lead / 1000000000)
  fraction = tonumber(fraction .. string.rep('0', 9 - #fraction)) - tonumber(late_by) + lead % 1000000000
  seconds, fraction = seconds + math.floor(fraction / 1000000000), fraction % 1000000000
  local most = seconds < 0 and string.rep('0', 22) or string.format('%013d%09d', seconds, fraction)
  return most < '0' .. value and string.sub(most, 2) .. string.sub(value, 22) or value
end

local function store(keys, values, bound)
  local count, outcomes, lead = #keys, {}, tonumber(values[#values])
  local expire = #values > count + 1
  for i = 1, count do
    local key, value = keys[i], values[i]
    local held = redis.pcall('GET', key)
    if type(held) == 'table' then
      outcomes[i] = '-'
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

-- A report is stored if its time is later than the stored one's. A time alone is less than anything that begins with
-- it, so what is less than the time of `value` has an earlier one.
redis.register_function('proxyherd_2_advance', function(keys, values)
  return store(keys, values, function(value) return string.sub(value, 1, 21) end)
end)

-- What another server took is learned if it is greater in the total order.
redis.register_function('proxyherd_2_admit', function(keys, values)
  return store(keys, values, function(value) return value end)
end)

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

-- A cid was not taken, and later ones of its origin may be: note the gap, so that it can still be appended.
-- KEYS  1 m  2 dedupe of this month  3 dedupe of the month before  4 dedupe of the month to come
-- ARGV  1 origin  2 cid  3 month  4 seconds a dedupe hash lives
-- Gives 1, or 0 when there was nothing to do.
local cid = tonumber(ARGV[2])
local meta = redis.call('HMGET', KEYS[1], 'e', 'k')
if cid <= 0 or not meta[1] then return 0 end
local this_month, month_before, month = KEYS[2], KEYS[3], ARGV[3] -- see append.lua
if number(meta[2]) == tonumber(month) + 1 then this_month, month_before, month = KEYS[4], KEYS[2], meta[2] end
local function learn(field) return redis.call('HGET', this_month, field) or redis.call('HGET', month_before, field) end
local high = number(learn(ARGV[1]))
if cid <= high then return 0 end
local list = {}
for word in string.gmatch(learn('?' .. ARGV[1]) or '', '%d+') do list[#list + 1] = word end
list[#list + 1], list[#list + 2] = string.format('%.0f', high + 1), ARGV[2]
if #list > 2 * GAPS_MAX then table.remove(list, 1) table.remove(list, 1) end
local is_new_hash = redis.call('EXISTS', this_month) == 0
redis.call('HSET', this_month, ARGV[1], ARGV[2], '?' .. ARGV[1], table.concat(list, ' '))
if is_new_hash then
  redis.call('EXPIRE', this_month, ARGV[4])
  redis.call('HSET', KEYS[1], 'k', month)
end
return 1

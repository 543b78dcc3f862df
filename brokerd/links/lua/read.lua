-- A page of a user's entries behind a seq.
-- KEYS  1 m  2 q
-- ARGV  1 after  2 count_max  3 bytes_max
-- Gives first, head, entry, entry, …
local floor = number(redis.call('HGET', KEYS[1], 'f'))
local head = floor + redis.call('LLEN', KEYS[2])
local after, count_max, bytes_max = math.max(number(ARGV[1]), floor), number(ARGV[2]), number(ARGV[3])
local page, bytes = {after + 1, head}, 0
walk(KEYS[2], floor, after + 1, math.min(head, after + math.max(count_max, 1)), function(_, entry)
  bytes = bytes + #entry - HEAD_BYTES
  if #page > 2 and bytes > bytes_max then return true end
  page[#page + 1] = entry
end)
return page

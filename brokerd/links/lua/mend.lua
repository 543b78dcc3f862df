-- The server was started anew, or is another one, and may lack the newest entries of a user. Their seqs are known to
-- devices: they are filled with tombstones, so that no later entry gets a seq that some device believes to have.
-- KEYS  1 m  2 q
-- ARGV  1 the head that was known  2 reason  3 tombstones_max  4 fresh generation, for more than that
-- Gives how many entries are missing, 0 = none.
local floor = redis.call('HGET', KEYS[1], 'f')
if not floor then return number(ARGV[1]) end
local missing = number(ARGV[1]) - number(floor) - redis.call('LLEN', KEYS[2])
if missing <= 0 then return 0 end
if missing > number(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'g', ARGV[4])
  return missing
end
local tombstones = {}
for i = 1, missing do tombstones[i] = string.rep('\0', HEAD_BYTES) .. ARGV[2] end
each(tombstones, function(from, to) redis.call('RPUSH', KEYS[2], unpack(tombstones, from, to)) end)
return missing

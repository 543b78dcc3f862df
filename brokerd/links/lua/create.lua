-- Make a user known. Gives 1, or 0 when it was.
-- KEYS  1 m
-- ARGV  1 fresh generation  2 now_ms
if redis.call('HSETNX', KEYS[1], 'e', ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'g', ARGV[1], 'f', 0, 'b', 0, 'd', 0, 'w', 0)
return 1

-- A queue begins another life: what devices know of it by seq means nothing any more. Gives 1, or 0 when there is none.
-- KEYS  1 m
-- ARGV  1 fresh generation
if redis.call('HEXISTS', KEYS[1], 'e') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'g', ARGV[1])
return 1

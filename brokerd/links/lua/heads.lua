-- The newest seq of a user, 0 = none.
-- KEYS  1 m  2 q
return number(redis.call('HGET', KEYS[1], 'f')) + redis.call('LLEN', KEYS[2])

-- Keep why delivery to a known device last stopped: "reason at_ms attempts". The same stop told twice counts once.
-- KEYS  1 c  2 s
-- ARGV  1 device  2 reason  3 at_ms
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
local old = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local at, attempts = string.match(old, '^%S+ (%S+) (%d+)$')
if at == ARGV[3] then return 0 end
local text = ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. string.format('%d', number(attempts) + 1)
return redis.call('HSET', KEYS[2], ARGV[1], text)

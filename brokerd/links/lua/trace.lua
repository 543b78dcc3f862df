-- Keep hops of messages, and forget the messages that are too old or too many.
-- KEYS  1 traces (zset: id → time of its last hop)   and t:ID, a list of hops, for each id: made here, for many may go
-- ARGV  1 messages_max  2 keep_ms  3 hops_max  then id, at_ms, hop, id, at_ms, hop, …
local messages_max, keep_ms, hops_max, newest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), 0
for i = 4, #ARGV, 3 do
  local id, at = ARGV[i], tonumber(ARGV[i + 1])
  newest = math.max(newest, at)
  if redis.call('LLEN', 't:' .. id) < hops_max then redis.call('RPUSH', 't:' .. id, ARGV[i + 2]) end
  redis.call('PEXPIRE', 't:' .. id, keep_ms)
  redis.call('ZADD', KEYS[1], 'GT', at, id)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', newest - keep_ms)
local surplus = redis.call('ZCARD', KEYS[1]) - messages_max
if surplus > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[1], math.min(surplus, 1000))
  for i = 1, #oldest, 2 do redis.call('DEL', 't:' .. oldest[i]) end
end
return 1

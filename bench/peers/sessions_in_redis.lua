-- Sessions in Redis, asked on every request: GET and EXPIRE in one round trip, on a pooled connection.
local redis = require "nginx.redis"

local HEX = {}
for byte = 0, 255 do
    HEX[string.char(byte)] = string.format("%02x", byte)
end

return function(port)
    return function(id)
        local client = redis:new()
        if not client:connect("127.0.0.1", port) then
            return false
        end
        local key = "session:" .. id:gsub(".", HEX)
        client:init_pipeline()
        client:get(key)
        client:expire(key, 7200)
        local answers = client:commit_pipeline()
        client:set_keepalive(60000, 1024)
        return answers and type(answers[1]) == "string"
    end
end

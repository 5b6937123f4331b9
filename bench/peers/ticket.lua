-- Verifies a ticket as docs/reference/ticket-format.md says: the session's id and the principal, or nil. libcrypto by FFI, as fast as Lua has it.
local ffi = require "ffi"
local base64 = require "ngx.base64"

ffi.cdef [[
const void *EVP_sha256(void);
unsigned char *HMAC(const void *md, const void *key, int key_size, const char *data, size_t size, unsigned char *out, unsigned int *out_size);
]]

local digest = ffi.new("unsigned char[32]")

return function(key_id, key_hex)
    local key = key_hex:gsub("..", function(pair) return string.char(tonumber(pair, 16)) end)
    local sha256 = ffi.C.EVP_sha256()
    return function(ticket)
        local raw = ticket and base64.decode_base64url(ticket)
        if not raw or #raw < 66 or raw:byte(2) ~= key_id then
            return nil
        end
        local signed = raw:sub(1, -33)
        ffi.C.HMAC(sha256, key, #key, signed, #signed, digest, nil)
        if ffi.string(digest, 32) ~= raw:sub(-32) then
            return nil
        end
        return raw:sub(3, 18), raw:sub(34, 33 + raw:byte(33))
    end
end

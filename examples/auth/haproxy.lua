-- `http-request lua.ticket`: ask fastticket whether a request may pass.
--   txn.status     the answer's status; unset if there is no answer
--   txn.user       the user, if there is one
--   txn.login      the address of the login page, for a browser
--   txn.challenge  the WWW-Authenticate field of a 401
local ENDPOINT = "http://127.0.0.1:8081/_ticket/auth"
local TIMEOUT_MS = 2000

-- Only these fields are sent to fastticket, so no field of a client can be taken for one of them.
local function describe(txn)
    local said = {
        ["host"] = { txn.sf:req_fhdr("host") },
        ["x-original-method"] = { txn.sf:method() },
        ["x-original-uri"] = { txn.sf:pathq() },
        ["x-forwarded-for"] = { txn.sf:src() },
    }
    local headers = txn.http:req_get_headers()
    for _, name in ipairs({ "cookie", "authorization", "accept" }) do
        if headers[name] then
            said[name] = {}
            for _, value in pairs(headers[name]) do
                table.insert(said[name], value)
            end
        end
    end
    return said
end

local function first(answer, name)
    local values = answer.headers and answer.headers[name]
    return values and (values[0] or values[1])
end

core.register_action("ticket", { "http-req" }, function(txn)
    local answer = core.httpclient():get({ url = ENDPOINT, headers = describe(txn), timeout = TIMEOUT_MS })
    if not answer or not answer.status or answer.status == 0 then
        return
    end
    txn:set_var("txn.status", answer.status)
    local user = first(answer, "x-forwarded-user")
    if user and user ~= "" then
        txn:set_var("txn.user", user)
    end
    if answer.status == 401 then
        txn:set_var("txn.challenge", first(answer, "www-authenticate") or "Ticket")
        local login = first(answer, "location")
        if login then
            txn:set_var("txn.login", login)
        end
    end
end)

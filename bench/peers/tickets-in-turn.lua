-- For wrk: each request carries the next ticket of a file.
local requests, next_request = {}, 0

function init(arguments)
    for ticket in io.lines(arguments[1]) do
        requests[#requests + 1] = wrk.format("GET", nil, { Host = "shop.example.com", Cookie = "theme=dark; ticket=" .. ticket })
    end
end

function request()
    next_request = next_request % #requests + 1
    return requests[next_request]
end

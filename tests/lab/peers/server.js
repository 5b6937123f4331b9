// A server of Node's http module on the listening socket whose descriptor is its argument.
// Its answers number the connection that a request came by, so that a test sees which were kept.
"use strict";

const http = require("node:http");

let connections = 0;

const answers = {
  "/"(request, response) {
    response.end("hello");
  },
  // The body, each piece as soon as it is here, after a 103 that a proxy may drop.
  "/echo"(request, response) {
    response.writeEarlyHints({ link: "</style.css>; rel=preload" });
    response.flushHeaders();
    request.pipe(response);
  },
  // How long the body was.
  "/count"(request, response) {
    let size = 0;
    request.on("data", (piece) => { size += piece.length; });
    request.on("end", () => response.end(String(size)));
  },
};

const server = http.createServer((request, response) => {
  response.setHeader("X-Connection", request.socket.number);
  answers[request.url](request, response);
});
server.on("connection", (socket) => { socket.number = ++connections; });
server.listen({ fd: Number(process.argv[2]) });

// A WebSocket client of Node's ws: node websocket_client.js URL COOKIE
// It sends a text, bytes, a ping and `bye`, and prints what came back, each as a line.
"use strict";

const WebSocket = require("ws");

const [url, cookie] = process.argv.slice(2);
const socket = new WebSocket(url, { headers: { Cookie: cookie } });
const steps = [
  () => socket.send("text"),
  () => socket.send(Buffer.alloc(1 << 20, "x")),
  () => socket.ping("still there?"),
  () => socket.send("bye"),
];

function next(line) {
  console.log(line);
  steps.shift()();
}

socket.on("open", () => next("open"));
socket.on("message", (data, isBinary) => next(isBinary ? `${data.length} bytes` : String(data)));
socket.on("pong", (data) => next(`pong ${data}`));
socket.on("close", (code, reason) => console.log(`close ${code} ${reason}`));

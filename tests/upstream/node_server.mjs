// Node's http server, with a route for each thing that servers of this kind do. Argument: the port.
import http from "node:http";

const pause = () => new Promise((resolve) => setTimeout(resolve, 5));

const routes = {
  async "/pieces"(_, response) {
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (let i = 0; i < 5; i++) {
      response.write(`data: ${i}\n\n`);
      await pause();
    }
    response.end();
  },
  async "/burst"(_, response) {
    for (let i = 0; i < 1000; i++) response.write(`${i},`);
    response.end();
  },
  async "/trailers"(_, response) {
    response.writeHead(200, { trailer: "X-Digest" });
    response.write("body");
    response.addTrailers({ "X-Digest": "abc" });
    response.end();
  },
  async "/hints"(_, response) {
    response.writeContinue();
    response.writeEarlyHints({ link: "</a.css>; rel=preload" });
    response.writeProcessing();
    response.writeEarlyHints({ link: "</b.css>; rel=preload" });
    response.setHeader("set-cookie", ["a=1", "b=2"]);
    response.end("after hints");
  },
  async "/destroy"(_, response) {
    response.write("half of it");
    await pause();
    response.destroy();
  },
  async "/destroy-length"(_, response) {
    response.writeHead(200, { "content-length": 100 });
    response.write("half of it");
    await pause();
    response.destroy();
  },
  async "/destroy-early"(request) {
    request.socket.destroy();
  },
  async "/echo"(request, response) {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    response.end(Buffer.concat(pieces));
  },
  async "/close"(_, response) {
    response.setHeader("connection", "close");
    response.end("bye");
  },
};

const server = http.createServer((request, response) => routes[request.url](request, response));
server.keepAliveTimeout = 5000;
server.listen(Number(process.argv[2]), "127.0.0.1");

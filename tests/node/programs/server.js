// A server: keeps the process alive until it is told to end; with "unref" it does not.
const { Server } = require("kps");

Server.start({ listen: "127.0.0.1:0" }).then((server) => {
  if (process.argv[2] === "unref") server.unref();
  if (process.argv[2] === "run") server.Run();
  console.log(server.url);
});

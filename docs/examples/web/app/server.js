const express = require("express");

const app = express();
app.get("/", (request, response) => response.json({ hello: request.query.name || "world" }));

const once = process.argv.includes("--once");
const server = app.listen(once ? 0 : 8080, async () => {
  if (!once) return console.log("listening on 8080");
  const answer = await fetch(`http://127.0.0.1:${server.address().port}/?name=test`);
  console.log(await answer.text());
  server.close();
});

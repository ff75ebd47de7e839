// Sends messages in one session under TLS, with the certificate verified. Prints the server's reply to each.
//
// Arguments: host, port, the authority's certificate, TLS version ("TLSv1.2"), the recipients; the message is on standard
// input, in the form in which it is sent.
"use strict";

const fs = require("fs");
const nodemailer = require("nodemailer");

const [host, port, authority, version, ...recipients] = process.argv.slice(2);
const transport = nodemailer.createTransport({
  host,
  port: Number(port),
  name: "client.example.net",
  requireTLS: true,
  pool: true,
  maxConnections: 1,
  tls: {
    ca: fs.readFileSync(authority),
    servername: "mx.example.org",
    minVersion: version,
    maxVersion: version,
  },
});
const raw = fs.readFileSync(0);

async function main() {
  for (const to of recipients) {
    const sent = await transport.sendMail({ envelope: { from: "sender@example.net", to }, raw });
    console.log(sent.response);
  }
  transport.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

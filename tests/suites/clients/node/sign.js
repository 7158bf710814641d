// Makes a client's token with what Node has built in, of any algorithm that crieur takes; or a key for it.
//
//     node sign.js ALG KEY < claims.json
//     node sign.js --generate ALG            prints {"private":PEM,"public":PEM}
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");

const kinds = { ES256: ["ec", { namedCurve: "P-256" }], EdDSA: ["ed25519", {}] };

function sign(algorithm, key, text) {
  switch (algorithm) {
    case "HS256":
      return crypto.createHmac("sha256", key).update(text).digest();
    case "ES256":
      // A token has the two numbers as they are; by default Node gives them as DER.
      return crypto.sign("sha256", Buffer.from(text), { key, dsaEncoding: "ieee-p1363" });
    case "EdDSA":
      return crypto.sign(null, Buffer.from(text), key);
    default:
      throw new Error(`no such algorithm: ${algorithm}`);
  }
}

const [first, second] = process.argv.slice(2);
if (first === "--generate") {
  const [kind, options] = kinds[second];
  const { privateKey, publicKey } = crypto.generateKeyPairSync(kind, options);
  console.log(
    JSON.stringify({
      private: privateKey.export({ type: "pkcs8", format: "pem" }),
      public: publicKey.export({ type: "spki", format: "pem" }),
    }),
  );
} else {
  const claims = JSON.parse(fs.readFileSync(0, "utf8"));
  const part = (json) => Buffer.from(JSON.stringify(json)).toString("base64url");
  const signed = `${part({ alg: first, typ: "JWT" })}.${part(claims)}`;
  console.log(`${signed}.${sign(first, second, signed).toString("base64url")}`);
}

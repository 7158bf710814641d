// Makes a client's token with npm's `jsonwebtoken`.
//
//     node token.js KEY < claims.json
"use strict";

const fs = require("node:fs");
const jwt = require("jsonwebtoken");

const claims = JSON.parse(fs.readFileSync(0, "utf8"));
console.log(jwt.sign(claims, process.argv[2], { algorithm: "HS256" }));

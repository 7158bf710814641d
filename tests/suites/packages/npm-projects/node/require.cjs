const WebSocket = require('ws');
const { Crieur, CrieurError } = require('@crieur/client');
const receive = require('./receive.cjs');

receive(Crieur, { WebSocket }).then((text) => console.log(text, new CrieurError('code', 'message').code));

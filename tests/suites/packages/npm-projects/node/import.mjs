import WebSocket from 'ws';
import { Crieur, CrieurError } from '@crieur/client';
import receive from './receive.cjs';

console.log(await receive(Crieur, { WebSocket }), new CrieurError('code', 'message').code);

import { Crieur } from '@crieur/client';
import { useCrieur } from '@crieur/client/react';

const required = require('@crieur/client');

class WebSocket {
  close() {}
}

for (const { Crieur: its } of [{ Crieur }, required]) {
  const crieur = new its('ws://test/', { WebSocket });
  crieur.close();
  console.log(crieur.status, typeof useCrieur);
}

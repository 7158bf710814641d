<?php

declare(strict_types=1);

namespace Crieur;

/** How notifications get to the server. */
enum Way: string
{
    /** By POST /publish: up to 1000 in one request. Where the server doesn't have that, by WebSocket. */
    case Http = 'http';
    /** Each on a WebSocket of its own, which the server closes with the receipt. */
    case WebSocket = 'websocket';
    /** All on one WebSocket, which stays open: for workers that publish all the time. */
    case KeptWebSocket = 'kept-websocket';
}

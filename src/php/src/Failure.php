<?php

declare(strict_types=1);

namespace Crieur;

/** Why a notification was not published, or isn't known to be. */
enum Failure: string
{
    /** No server takes this: it isn't JSON, isn't a notification, or is too big. */
    case Invalid = 'invalid';
    /** Nobody listens at the address, or not in time. */
    case Unreachable = 'unreachable';
    /** The server did not answer in time. It may have delivered the notification. */
    case Timeout = 'timeout';
    /** The connection broke before the answer. The server may have delivered the notification. */
    case Broken = 'broken';
    /** The server said no: the token is wrong, or it is full. */
    case Refused = 'refused';
    /** What came is no answer. */
    case Protocol = 'protocol';
}

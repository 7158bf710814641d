<?php

declare(strict_types=1);

namespace Crieur\Internal;

use Crieur\Result;

/**
 * Publishes by POST /publish, and asks for the position.
 *
 * @internal
 */
final class Http
{
    /** The answers of servers that publish over WebSocket only. */
    private const NO_HTTP = [404, 405, 426];

    public function __construct(private readonly Endpoint $endpoint)
    {
    }

    /**
     * The server takes all of them or none.
     *
     * @param non-empty-list<string> $messages
     * @return ?list<Result> `null` if the server doesn't publish over HTTP
     */
    public function publish(array $messages, Attempt $attempt): ?array
    {
        $json = count($messages) === 1 ? $messages[0] : '[' . implode(',', $messages) . ']';
        $stream = $this->endpoint->connect($attempt);
        $length = strlen($json);
        // Nobody answers in chunks to HTTP/1.0 (RFC 9112, section 6.1).
        $stream->write($this->endpoint->head('POST /publish', '1.0')
            . "Content-Type: application/json\r\nContent-Length: $length\r\n\r\n$json");
        $attempt->isWritten = true;
        [$status, $fields] = $stream->readHead();
        if (in_array($status, self::NO_HTTP, true)) {
            $attempt->isWritten = false;
            return null;
        }
        $body = $stream->readBody($status, $fields);
        return $status === 200 ? Answer::receipts($body, count($messages)) : throw Answer::refusal($status, $body);
    }

    public function position(Attempt $attempt): Result
    {
        $stream = $this->endpoint->connect($attempt);
        $stream->write($this->endpoint->head('GET /position', '1.0') . "\r\n");
        [$status, $fields] = $stream->readHead();
        $body = $stream->readBody($status, $fields);
        if ($status !== 200) {
            throw Answer::refusal($status, $body);
        }
        return Result::at(Answer::id(json_decode($body, true)));
    }
}

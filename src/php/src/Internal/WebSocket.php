<?php

declare(strict_types=1);

namespace Crieur\Internal;

use Crieur\Failure;
use Crieur\PublishException;
use Crieur\Result;

/**
 * Publishes over WebSocket (RFC 6455): each notification on a connection of its own, or all on one that stays.
 *
 * @internal
 */
final class WebSocket
{
    private const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
    private const TEXT = 0x1;
    private const CLOSE = 0x8;
    private const PING = 0x9;
    private const PONG = 0xA;
    private const TOO_BIG = 1009;

    /** The connection that stays: open, and no answer is due on it. */
    private ?Stream $kept = null;

    public function __construct(private readonly Endpoint $endpoint)
    {
    }

    /** On a connection of its own, which the server closes with the receipt. */
    public function publishOnce(string $message, Attempt $attempt): Result
    {
        return $this->exchange($this->open('/', $attempt), $message, $attempt, isKept: false)[0];
    }

    /** On the connection that stays, or on a new one. */
    public function publishKept(string $message, Attempt $attempt): Result
    {
        $stream = $this->reusable($attempt) ?? $this->open('/publish', $attempt);
        // After a failure, an answer may still come: nobody may take it for that of the next notification.
        $this->kept = null;
        [$result, $isOpen] = $this->exchange($stream, $message, $attempt, isKept: true);
        $this->kept = $isOpen ? $stream : null;
        return $result;
    }

    /** The connection that stays, if the server hasn't ended it meanwhile. */
    private function reusable(Attempt $attempt): ?Stream
    {
        $stream = $this->kept;
        if ($stream === null) {
            return null;
        }
        $stream->beginAttempt($attempt);
        try {
            while ($stream->isReadable()) {
                [$opcode, $payload] = self::readFrame($stream);
                if ($opcode !== self::PING) {
                    return null;
                }
                $stream->write(self::frame(self::PONG, $payload));
            }
        } catch (PublishException $failure) {
            return $failure->failure === Failure::Timeout ? throw $failure : null;
        }
        return $stream;
    }

    private function open(string $path, Attempt $attempt): Stream
    {
        $stream = $this->endpoint->connect($attempt);
        $key = base64_encode(random_bytes(16));
        $stream->write($this->endpoint->head("GET $path") . "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            . "Sec-WebSocket-Key: $key\r\nSec-WebSocket-Version: 13\r\n\r\n");
        [$status, $fields] = $stream->readHead();
        if ($status !== 101) {
            throw Answer::refusal($status, $stream->readBody($status, $fields));
        }
        // Section 4.1 of RFC 6455.
        $accept = base64_encode(sha1($key . self::GUID, true));
        $isUpgraded = strtolower($fields['upgrade'] ?? '') === 'websocket';
        if (!$isUpgraded || ($fields['sec-websocket-accept'] ?? '') !== $accept) {
            throw new PublishException(Failure::Protocol, 'what answers is no WebSocket server');
        }
        return $stream;
    }

    /** @return array{Result, bool} what became of it, and whether the connection is still open */
    private function exchange(Stream $stream, string $message, Attempt $attempt, bool $isKept): array
    {
        $stream->write(self::frame(self::TEXT, $message));
        $attempt->isWritten = true;
        $said = '';
        for (;;) {
            [$opcode, $payload] = self::readFrame($stream);
            if ($opcode === self::CLOSE) {
                $stream->write(self::frame(self::CLOSE, substr($payload, 0, 2)));
                return [self::closed($payload, $said), false];
            }
            if ($opcode === self::PING) {
                $stream->write(self::frame(self::PONG, $payload));
            } elseif ($opcode === self::TEXT && $isKept) {
                return [self::answered($payload), true];
            } elseif ($opcode === self::TEXT) {
                $said = $payload;
            }
        }
    }

    /** What an answer on a connection that stays says. */
    private static function answered(string $text): Result
    {
        $answer = json_decode($text, true);
        if (is_array($answer) && ($answer['type'] ?? null) === 'error') {
            $failure = Answer::failure($text, false, 'refused');
            return Result::failed($failure->failure, $failure->getMessage());
        }
        return Answer::receipt($answer);
    }

    /** What a Close and the message before it say. */
    private static function closed(string $payload, string $said): Result
    {
        $status = strlen($payload) < 2 ? 1005 : self::number('n', $payload);
        if ($status === 1000) {
            return Answer::receipt(json_decode(substr($payload, 2), true));
        }
        throw Answer::failure($said, $status === self::TOO_BIG, "closed with $status " . substr($payload, 2));
    }

    /** A masked frame (section 5.2 of RFC 6455). */
    private static function frame(int $opcode, string $payload): string
    {
        $length = strlen($payload);
        $header = match (true) {
            $length < 126 => pack('CC', 0x80 | $opcode, 0x80 | $length),
            $length < 65536 => pack('CCn', 0x80 | $opcode, 0x80 | 126, $length),
            default => pack('CCJ', 0x80 | $opcode, 0x80 | 127, $length),
        };
        $mask = random_bytes(4);
        return $header . $mask . ($payload ^ str_pad('', $length, $mask));
    }

    /** @return array{int, string} opcode and payload of a whole, unmasked frame */
    private static function readFrame(Stream $stream): array
    {
        [$first, $second] = [self::number('C', $stream->read(1)), self::number('C', $stream->read(1))];
        $length = match ($second) {
            126 => self::number('n', $stream->read(2)),
            127 => self::number('J', $stream->read(8)),
            default => $second,
        };
        if (($first & 0xF0) !== 0x80 || ($second & 0x80) !== 0 || $length > Stream::BYTES_MAX || $length < 0) {
            throw new PublishException(Failure::Protocol, 'a frame that no server of notifications sends');
        }
        return [$first & 0x0F, $stream->read($length)];
    }

    private static function number(string $format, string $bytes): int
    {
        return (unpack($format, $bytes) ?: [1 => 0])[1];
    }
}

<?php

declare(strict_types=1);

namespace Crieur\Internal;

use Crieur\Failure;
use Crieur\PublishException;
use JsonException;

/**
 * A notification with what stands beside it, as JSON.
 *
 * @internal
 */
final class Message
{
    private const KEY_BYTES_MAX = 128;
    private const FLAGS = JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION
        | JSON_THROW_ON_ERROR;

    private function __construct(
        public readonly bool $isKept,
        public readonly string $plain,
        /** The same with a key. */
        public readonly string $keyed,
    ) {
    }

    /**
     * @param array<string, mixed> $message
     * @throws PublishException if no server would take it
     */
    public static function from(array $message): self
    {
        $isKept = ($message['keep'] ?? true) !== false;
        $key = $message['key'] ?? null;
        if ($key !== null && (!$isKept || !self::isKey($key))) {
            throw new PublishException(Failure::Invalid, 'a key has 1 to 128 bytes, and is for what is kept');
        }
        if (!isset($message['notification'])) {
            throw new PublishException(Failure::Invalid, 'a message needs a notification');
        }
        try {
            $members = substr(json_encode(array_diff_key($message, ['key' => 0, 'sender' => 0]), self::FLAGS), 1);
            $key = json_encode($key ?? bin2hex(random_bytes(16)), self::FLAGS);
        } catch (JsonException $error) {
            throw new PublishException(Failure::Invalid, 'not JSON: ' . $error->getMessage());
        }
        return new self($isKept, '{"sender":"server",' . $members, '{"sender":"server","key":' . $key . ',' . $members);
    }

    private static function isKey(mixed $key): bool
    {
        return is_string($key) && $key !== '' && strlen($key) <= self::KEY_BYTES_MAX;
    }
}

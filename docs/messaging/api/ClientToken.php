<?php

declare(strict_types=1);

/**
 * The token with which a client shows crieur what it may subscribe to: a JSON Web Token (RFC 7519),
 * HS256, signed with the key that crieur has in --client-key-file.
 */
final class ClientToken
{
    /** A user who has left a channel goes on getting its notifications for at most this long. */
    public const SECONDS = 900;

    /** @param list<int> $channels */
    public static function sign(string $keyFile, string $login, array $channels): string
    {
        $values = ['channel' => array_map(strval(...), $channels)];
        $pages = [Notifier::MESSAGES, Notifier::CHANNELS, Notifier::TYPING];
        $claims = [
            'sub' => $login,
            'exp' => time() + self::SECONDS,
            'allow' => array_map(static fn (string $page): array => [
                'package' => Notifier::PACKAGE, 'page' => $page, 'filters' => ['values' => $values],
            ], $pages),
        ];
        $signed = self::base64url(json_encode(['typ' => 'JWT', 'alg' => 'HS256'])) . '.'
            . self::base64url(json_encode($claims, JSON_THROW_ON_ERROR));
        return $signed . '.' . self::base64url(hash_hmac('sha256', $signed, self::key($keyFile), true));
    }

    private static function key(string $file): string
    {
        $text = trim(file_get_contents($file) ?: throw new RuntimeException("cannot read $file"));
        return str_starts_with($text, 'base64:') ? base64_decode(substr($text, 7), true) : $text;
    }

    private static function base64url(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }
}

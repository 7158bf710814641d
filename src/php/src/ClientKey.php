<?php

declare(strict_types=1);

namespace Crieur;

use InvalidArgumentException;
use RuntimeException;

/**
 * The key that signs clients' tokens: JSON Web Tokens (RFC 7519) with HS256, by which a client shows the server what
 * it may subscribe to. The server has the same key, in `--client-key-file`.
 *
 *     $key = ClientKey::fromFile('/etc/crieur/client.key');
 *     echo $key->token(['user-17', ['package' => 'shop', 'page' => 'orders']], sub: '17');
 */
final class ClientKey
{
    /** A right that is taken away is gone after this long at the latest. */
    public const SECONDS = 900;

    private const SECRET_BYTES_MIN = 32;
    private const SUB_BYTES_MAX = 128;
    private const TOKEN_BYTES_MAX = 8192;

    private readonly string $secret;

    /**
     * @param string $line the secret as `crieur keygen client` writes it: 32 bytes or more, or `base64:` and its Base64
     * @throws InvalidArgumentException if it is no such secret
     */
    public function __construct(
        #[\SensitiveParameter]
        string $line,
    ) {
        if (str_starts_with($line, '-----BEGIN ')) {
            throw new InvalidArgumentException('this is a key for ES256 or EdDSA, and ClientKey signs with HS256');
        }
        if (preg_match('~^[!-\~]+$~D', $line) !== 1) {
            throw new InvalidArgumentException('a client key is one line of visible ASCII characters without spaces');
        }
        $this->secret = str_starts_with($line, 'base64:') ? self::decode(substr($line, 7)) : $line;
        if (strlen($this->secret) < self::SECRET_BYTES_MIN) {
            $length = strlen($this->secret);
            throw new InvalidArgumentException("the client key has $length bytes, and needs 32 or more");
        }
    }

    /**
     * Signs with the first key in the file: a second one may be there while keys are exchanged.
     *
     * @throws RuntimeException if it can't be read
     * @throws InvalidArgumentException if there is no such key in it
     */
    public static function fromFile(string $file): self
    {
        $why = '';
        // The application may have a handler that throws at each warning.
        set_error_handler(static function (int $level, string $warning) use (&$why): bool {
            $why = $warning;
            return true;
        });
        try {
            $text = file_get_contents($file);
        } finally {
            restore_error_handler();
        }
        if ($text === false) {
            throw new RuntimeException("cannot read the client key: $why");
        }
        return new self(preg_split('~\R~', ltrim($text), 2)[0] ?? '');
    }

    /**
     * A token for a client.
     *
     * @param list<string|array<string, mixed>> $allow what it may subscribe to: channels, or pages with their values
     * @param ?string $sub names the user to operators, and grants nothing
     * @param bool $history `false` withholds what was published before the client subscribed
     * @throws InvalidArgumentException if no server would take it
     */
    public function token(
        array $allow,
        ?string $sub = null,
        int $seconds = self::SECONDS,
        bool $history = true,
    ): string {
        if ($seconds < 1) {
            throw new InvalidArgumentException('a token is valid for a second or more');
        }
        if (strlen($sub ?? '') > self::SUB_BYTES_MAX) {
            throw new InvalidArgumentException('sub has at most ' . self::SUB_BYTES_MAX . ' bytes');
        }
        $now = time();
        $claims = ($sub === null ? [] : ['sub' => $sub])
            + ['iat' => $now, 'exp' => $now + $seconds, 'allow' => array_values($allow)]
            + ($history ? [] : ['history' => false]);
        $signed = self::encode(['typ' => 'JWT', 'alg' => 'HS256']) . '.' . self::encode($claims);
        $token = $signed . '.' . self::base64url(hash_hmac('sha256', $signed, $this->secret, true));
        if (strlen($token) > self::TOKEN_BYTES_MAX) {
            $why = 'allow fewer, such as a page instead of each of its values';
            throw new InvalidArgumentException('the token is larger than the 8 KiB that a server takes: ' . $why);
        }
        return $token;
    }

    private static function decode(
        #[\SensitiveParameter]
        string $text,
    ): string {
        $bytes = base64_decode(strtr($text, '-_', '+/'), true);
        return $bytes === false
            ? throw new InvalidArgumentException('the client key must be Base64 behind base64:')
            : $bytes;
    }

    /** @param array<string, mixed> $value */
    private static function encode(array $value): string
    {
        $json = json_encode($value, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
        return $json === false
            ? throw new InvalidArgumentException('the claims are not JSON: ' . json_last_error_msg())
            : self::base64url($json);
    }

    private static function base64url(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }
}

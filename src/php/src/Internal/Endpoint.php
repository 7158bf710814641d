<?php

declare(strict_types=1);

namespace Crieur\Internal;

use Crieur\Failure;
use Crieur\PublishException;

/**
 * Where the server is, and what a request has to show there.
 *
 * @internal
 */
final class Endpoint
{
    private const TRANSPORTS = ['tcp' => 'tcp', 'http' => 'tcp', 'tls' => 'tls', 'https' => 'tls'];
    private const PORTS = ['http' => '80', 'https' => '443'];
    /** Scheme, host and port. */
    private const URL = '~^([a-z]+)://(\[[0-9a-f:.]+\]|[\w.-]+)(?::(\d+))?(?:/(?:publish)?)?$~Di';

    /** As `stream_socket_client` takes it; empty if the address is none. */
    private readonly string $socket;
    private readonly string $host;
    /** As a file has it, perhaps with the end of its line. */
    private readonly ?string $token;

    public function __construct(
        private readonly string $address,
        #[\SensitiveParameter]
        ?string $token,
        private readonly float $connectSeconds,
    ) {
        [$this->socket, $this->host] = self::parse($address);
        $this->token = $token === null ? null : preg_replace('~\r?\n$~D', '', $token);
    }

    /** @return array{string, string} */
    private static function parse(string $address): array
    {
        if (preg_match('~^unix:///.~', $address) === 1) {
            return [$address, 'localhost'];
        }
        $isUrl = preg_match(self::URL, $address, $match) === 1;
        $scheme = strtolower($match[1] ?? '');
        $port = $match[3] ?? self::PORTS[$scheme] ?? null;
        if (!$isUrl || !isset(self::TRANSPORTS[$scheme]) || $port === null) {
            return ['', ''];
        }
        $host = isset($match[3]) ? "$match[2]:$match[3]" : $match[2];
        return [self::TRANSPORTS[$scheme] . "://$match[2]:$port", $host];
    }

    public function connect(Attempt $attempt): Stream
    {
        if ($this->socket === '') {
            $expected = 'expected one such as unix:///path, http://127.0.0.1:8000 or https://host';
            throw new PublishException(Failure::Unreachable, "cannot connect to \"$this->address\": $expected");
        }
        if ($this->token !== null && preg_match('~^[!-\~]+$~D', $this->token) !== 1) {
            throw new PublishException(Failure::Refused, 'the token is not one line of visible ASCII characters');
        }
        return Stream::connect($this->socket, $this->connectSeconds, $attempt);
    }

    /** The head of a request, without its end. */
    public function head(string $request, string $version = '1.1'): string
    {
        $authorization = $this->token === null ? '' : "Authorization: Bearer $this->token\r\n";
        return "$request HTTP/$version\r\nHost: $this->host\r\n$authorization";
    }
}

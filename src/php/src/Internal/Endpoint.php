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

    public function __construct(
        private readonly string $address,
        #[\SensitiveParameter]
        private readonly ?string $token,
        private readonly float $connectSeconds,
    ) {
        [$this->socket, $this->host] = self::parse($address);
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
        return Stream::connect($this->socket, $this->connectSeconds, $attempt);
    }

    /** The head of a request, without its end. */
    public function head(string $request): string
    {
        $authorization = $this->token === null ? '' : "Authorization: Bearer $this->token\r\n";
        return "$request HTTP/1.1\r\nHost: $this->host\r\n$authorization";
    }
}

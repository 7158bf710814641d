<?php
/*
 * Publishes as API hosts do it: an upgrade and a masked frame, by hand, on a plain stream.
 *
 *     php publish.php WAY HOST:PORT < messages.json
 *
 * messages.json is an array of texts; each is sent on its own connection, in one of these ways:
 *     answered            waits for the 101, sends, prints the Close that comes: [code, reason]
 *     one-packet          sends the upgrade and the message at once, then as above
 *     hang-up             sends both, one after the other, and closes without reading anything
 *     one-packet-hang-up  sends both at once and closes without reading anything
 *     reset               closes with the 101 unread, so that the kernel resets the connection
 */

const SECONDS_MAX = 10;

[, $way, $address] = $argv;
foreach (json_decode(stream_get_contents(STDIN), flags: JSON_THROW_ON_ERROR) as $message) {
    $socket = stream_socket_client("tcp://$address", $code, $error, SECONDS_MAX) ?: fail("cannot connect: $error");
    stream_set_timeout($socket, SECONDS_MAX);
    $key = base64_encode(random_bytes(16));
    $upgrade = "GET / HTTP/1.1\r\nHost: $address\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        . "Sec-WebSocket-Key: $key\r\nSec-WebSocket-Version: 13\r\n\r\n";
    $frame = frame(0x1, $message);
    switch ($way) {
        case 'answered':
            send($socket, $upgrade);
            expect_upgrade($socket, $key);
            send($socket, $frame);
            print_close($socket);
            break;
        case 'one-packet':
            send($socket, $upgrade . $frame);
            expect_upgrade($socket, $key);
            print_close($socket);
            break;
        case 'hang-up':
            send($socket, $upgrade);
            send($socket, $frame);
            break;
        case 'one-packet-hang-up':
            send($socket, $upgrade . $frame);
            break;
        case 'reset':
            send($socket, $upgrade);
            $readable = [$socket];
            $none = null;
            stream_select($readable, $none, $none, SECONDS_MAX) === 1 || fail('no answer to the upgrade');
            send($socket, $frame);
            break;
        default:
            fail("no such way: $way");
    }
    fclose($socket);
}

function frame(int $opcode, string $payload): string
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

function send($socket, string $bytes): void
{
    fwrite($socket, $bytes) === strlen($bytes) || fail('cannot send');
}

function expect_upgrade($socket, string $key): void
{
    $head = '';
    do {
        $line = fgets($socket);
        $line === false && fail("no 101, but: $head");
        $head .= $line;
    } while ($line !== "\r\n");
    $accept = base64_encode(sha1($key . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11', true));
    str_starts_with($head, 'HTTP/1.1 101 ') || fail("no 101, but: $head");
    preg_match("~^sec-websocket-accept: *" . preg_quote($accept) . "\r$~mi", $head) || fail("wrong accept key: $head");
}

/* The only frame that a publisher gets is a Close, unmasked; after the answer TCP ends. */
function print_close($socket): void
{
    $header = stream_get_contents($socket, 2);
    strlen($header) === 2 && $header[0] === "\x88" || fail('no Close, but: ' . bin2hex($header));
    $payload = stream_get_contents($socket, ord($header[1]));
    echo json_encode([unpack('n', $payload)[1], substr($payload, 2)]), "\n";
    send($socket, frame(0x8, substr($payload, 0, 2)));
    stream_get_contents($socket) === '' || fail('something came after the Close');
    stream_get_meta_data($socket)['timed_out'] && fail('the connection stayed open after the Close');
}

function fail(string $what): never
{
    fwrite(STDERR, "publish.php: $what\n");
    exit(1);
}

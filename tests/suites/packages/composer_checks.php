<?php

declare(strict_types=1);

/*
 * Uses crieur/client as Composer has installed it in the folder where this runs, and prints tokens that the server's
 * key has signed, one a line:
 *
 *     php composer_checks.php HOST:PORT KEY_FILE
 */

use Crieur\ClientKey;
use Crieur\Failure;
use Crieur\PublishException;
use Crieur\Publisher;
use Crieur\Result;
use Crieur\Way;

require getcwd() . '/vendor/autoload.php';
error_reporting(E_ALL);
set_error_handler(static function (int $level, string $message): never {
    throw new ErrorException($message);
});

function expect(string $what, mixed $got, mixed $wanted): void
{
    if ($got !== $wanted) {
        throw new LogicException("$what: " . var_export($got, true) . ', expected ' . var_export($wanted, true));
    }
}

/** @param class-string<Throwable> $class */
function fails(string $class, string $says, callable $work): Throwable
{
    try {
        $work();
    } catch (Throwable $error) {
        expect("what fails with \"{$error->getMessage()}\"", $error::class, $class);
        expect("whether \"{$error->getMessage()}\" says \"$says\"", str_contains($error->getMessage(), $says), true);
        return $error;
    }
    throw new LogicException("nothing has failed with $says");
}

[, $address, $keyFile] = $argv;

foreach (Way::cases() as $way) {
    foreach (["http://$address", "http://$address/", "http://$address/publish", "tcp://$address"] as $url) {
        $crieur = new Publisher($url, totalSeconds: 10.0, way: $way);
        $name = "$way->value to $url";
        $result = $crieur->publish((object) ['channel' => 'checks', 'text' => 'é/"'], key: $name);
        expect($name, [$result->isSent(), $result->isLost(), $result->repeated], [true, false, false]);
        expect("the position after $name", $crieur->position()->id, $result->id);
        $again = $crieur->publish(['channel' => 'checks'], key: $name)->orThrow();
        expect("$name again", [$again->id, $again->repeated], [$result->id, true]);
        expect("$name, not kept", $crieur->publish(['channel' => 'checks'], keep: false)->orThrow()->id, null);
    }
    $messages = array_fill(0, 1500, ['notification' => ['channel' => 'checks']]);
    $ids = array_map(static fn (Result $result): ?string => $result->orThrow()->id, $crieur->publishAll($messages));
    expect("how many ids 1500 have by $way->value", count(array_unique($ids)), 1500);
    expect("nothing by $way->value", $crieur->publishAll([]), []);

    $bad = fails(PublishException::class, 'page', static fn () => $crieur->publish(['package' => 'x'])->orThrow());
    expect('its failure', $bad->failure, Failure::Invalid);
}
$nobody = new Publisher('unix:///nowhere.sock', 'secret-of-the-publisher');
$down = fails(PublishException::class, '/nowhere.sock', static fn () => $nobody->publish([])->orThrow());
expect('the failure where nobody listens', $down->failure, Failure::Unreachable);

$thrower = new class implements JsonSerializable {
    public function jsonSerialize(): never
    {
        throw new LogicException('it has no text');
    }
};
$bad = fails(PublishException::class, 'no text', static fn () => $nobody->publish(['a' => $thrower])->orThrow());
expect('the failure of what has no JSON', $bad->failure, Failure::Invalid);

// More than select(2) takes. The suite allows them.
$files = array_map(static fn () => fopen('/dev/null', 'r'), range(1, 1100));
$began = hrtime(true);
$result = (new Publisher("http://$address", totalSeconds: 10.0))->publish(['channel' => 'checks']);
expect('with many open files', [$result->failure, $result->isLost()], [Failure::Broken, false]);
expect('whether it was told at once', hrtime(true) - $began < 5e9, true);
unset($files);

$line = trim(file_get_contents($keyFile));
$base64 = 'base64:' . base64_encode($line);
$bad = InvalidArgumentException::class;
fails($bad, 'has 31 bytes', static fn () => new ClientKey(str_repeat('x', 31)));
fails($bad, 'has 31 bytes', static fn () => new ClientKey('base64:' . base64_encode(str_repeat('x', 31))));
fails($bad, 'Base64', static fn () => new ClientKey('base64:' . str_repeat('*', 64)));
fails($bad, 'HS256', static fn () => new ClientKey("-----BEGIN PRIVATE KEY-----\nMC4C"));
fails($bad, 'one line', static fn () => new ClientKey("$line\n"));
fails($bad, 'one line', static fn () => new ClientKey(''));
fails(RuntimeException::class, '/nowhere.key', static fn () => ClientKey::fromFile('/nowhere.key'));
$key = new ClientKey($line);
fails($bad, '128', static fn () => $key->token(['user-17'], sub: str_repeat('é', 65)));
fails($bad, '8 KiB', static fn () => $key->token(array_fill(0, 500, 'a-channel-of-some-length')));
fails($bad, 'second', static fn () => $key->token(['user-17'], seconds: 0));
fails($bad, 'UTF-8', static fn () => $key->token(["\xff"]));

file_put_contents('two.keys', "\r\n$line\r\n" . str_repeat('another', 5) . "\r\n");
$keys = [
    ClientKey::fromFile($keyFile),
    ClientKey::fromFile('two.keys'),
    $key,
    new ClientKey($base64),
    new ClientKey(rtrim($base64, '=')),
];
foreach ($keys as $each) {
    echo $each->token(['user-17'], sub: str_repeat('é', 64), seconds: 60, history: false), "\n";
}

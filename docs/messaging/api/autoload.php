<?php

declare(strict_types=1);

/*
 * Loads the package crieur/client. Here it is in the same repository, so that PHP alone is enough. In an application
 * of your own, Composer has it: `require __DIR__ . '/../vendor/autoload.php';` instead of this file.
 */

require __DIR__ . '/../../../src/php/autoload.php';
